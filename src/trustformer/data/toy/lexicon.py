# SPDX-License-Identifier: Apache-2.0
"""The words of the toy corpus, three small languages for special purposes over one shared core.

Nouns: `lemma flags english [stem= ps= np= gp=]`. The first flag is the gender, `A` marks a noun declined as an
adjective, `*` a stressed ending, `P` a given name; the rest say what kind of thing it is: p person, d text,
t thing, r drug, i illness, o part of the body, e event, m money, c crime, b matter, v place (в), n place (на),
w what can be broken, x lifted, y won.
Adjectives: `lemma kinds english`. Verbs: `imperfective perfective english government kinds`, where english may
be `imperfective|perfective`, government is a case (2 to 6) or a preposition and a case, `R` an accusative and
a recipient, and kinds are those of the object. Spellings as `russian` and `english` read them. A word
that several domains list with other meanings is what makes a client of one domain wrong in the others.
"""

from __future__ import annotations

SHARED_NOUNS = """
директор mp director np=директора; начальник mp boss; помощник mp assistant; секретарь mp* secretary;
гость mp guest; инженер mp engineer; учитель mp teacher np=учителя; журналист mp journalist;
переводчик mp interpreter; водитель mp driver; женщина fp woman; мужчина mp man; девушка fp girl;
студент mp student; актёр mp actor; художник mp artist; Анна fpP Anna; Мария fpP Maria; Ольга fpP Olga;
Елена fpP Elena; Иван mpP Ivan; Андрей mpP Andrei; Борис mpP Boris; Виктор mpP Viktor; Сергей mpP Sergei;
Ирина fpP Irina; письмо nd letter gp=писем; документ md document; книга ft book; телефон mt telephone;
ключ mt* key; сумка ft bag; фотография ft photograph; стол mt* table; коробка ft box; ошибка fb mistake;
ответ mb answer; вопрос mb question; список md list stem=списк; план mb plan; адрес md address np=адреса;
решение nb decision; проблема fb problem; идея fb idea; правило nbw rule; журнал mt magazine;
компьютер mt computer; причина fb reason; результат mb result; папка ft folder; конверт mt envelope;
встреча fe meeting; разговор me conversation; совещание ne conference; поездка fe trip; праздник me holiday;
город mv city np=города; комната fv room; коридор mv corridor; здание nv building; школа fv school;
музей mv museum; магазин mv shop; театр mv theatre; улица fn street; вокзал mn station; завод mn factory
"""

SHARED_ADJECTIVES = """
новый pdtbemrvn new; старый pdtbvn old; важный pdbec important; большой dtbvnmo big; маленький dtvnmo small;
хороший pdtber good; плохой pdtbe bad; трудный be difficult; странный pdtbei strange; молодой p young;
опытный p experienced; строгий p strict; короткий de short; длинный de long; красный t red; чёрный t black;
белый t white; дорогой tr expensive; дешёвый tr cheap; интересный db interesting; простой db simple;
срочный de urgent; известный pvn famous; умный p clever; вежливый p polite; усталый p tired;
честный p honest; пожилой p elderly; полезный dtbr useful; синий t blue; подробный d detailed;
тихий vn quiet
"""

SHARED_VERBS = """
читать прочитать read/read/read 4 d; писать:пишу:пишешь написать:напишу:напишешь write/wrote/written 4 d;
видеть:вижу:видишь увидеть:увижу:увидишь see/saw/seen 4 pdt;
находить найти:найду:найдёшь:нашёл:нашла find/found/found 4 pdtb; терять потерять lose/lost/lost 4 dt;
показывать показать:покажу:покажешь show/showed/shown R dtm; отправлять отправить send/sent/sent R dt;
давать дать:дать give/gave/given R dtrm; брать:беру:берёшь взять:возьму:возьмёшь take/took/taken 4 dt;
приносить принести:принесу:принесёшь:принёс:принесла bring/brought/brought R dtr;
объяснять объяснить explain R b; обсуждать обсудить discuss 4 bde;
забывать забыть:забуду:забудешь forget/forgot/forgotten 4 pdt; готовить подготовить prepare 4 de;
хранить сохранить keep/kept/kept|save 4 dt; получать получить receive 4 dtm; изучать изучить study 4 db;
ждать:жду:ждёшь:ждал:ждала подождать:подожду:подождёшь wait_for 4 p; встречать встретить meet/met/met 4 p;
помогать помочь:помогу:поможешь:помог:помогла help 3 p; отвечать ответить answer 3 p;
звонить позвонить call 3 p; благодарить поблагодарить thank 4 p; слушать послушать listen_to 4 p;
спрашивать спросить ask 4 p; разговаривать поговорить talk/talked/talked_to с5 p;
думать подумать think/thought/thought_about о6 pb;
смотреть:смотрю:смотришь посмотреть:посмотрю:посмотришь look_at на4 pdt;
описывать описать:опишу:опишешь describe 4 pdtbe; исправлять исправить correct 4 db;
выбирать выбрать:выберу:выберешь choose/chose/chosen 4 pdt; уничтожать уничтожить destroy 4 dt;
критиковать раскритиковать criticise 4 pdb; искать:ищу:ищешь поискать:поищу:поищешь look_for 4 pdt;
приходить прийти:приду:придёшь:пришёл:пришла come/came/come_to L vn;
возвращаться вернуться:вернусь:вернёшься return_to L vn;
ехать:еду:едешь поехать:поеду:поедешь go/went/gone_to L vn
"""

HOSPITAL_NOUNS = """
врач mp* doctor; медсестра fp nurse ps=медсёстр gp=медсестёр; пациент mp patient; хирург mp surgeon;
терапевт mp therapist; санитар mp orderly; аптекарь mp pharmacist; стоматолог mp dentist;
педиатр mp paediatrician; акушерка fp midwife; психиатр mp psychiatrist; родственник mp relative;
донор mp donor; лаборант mp technician; невролог mp neurologist; сиделка fp carer; практикант mp trainee;
рецепт md prescription; карта fd chart; справка fd note; направление nd referral;
счёт md bill np=счета ps=счет; заключение nd report; анкета fd questionnaire; снимок md scan stem=снимк;
кардиограмма fd cardiogram; рекомендация fd recommendation; история fd history; таблетка fr tablet;
лекарство nr medicine; мазь fr ointment; вакцина fr vaccine; витамин mr vitamin; антибиотик mr antibiotic;
сироп mr syrup; шприц mt syringe; бинт mt* bandage; повязка ft dressing; термометр mt thermometer;
капельница ft drip; халат mt gown; маска ft mask; перчатка ft glove; костыль mt* crutch; кровать ft bed;
одеяло nt blanket; подушка ft pillow; микроскоп mt microscope; прибор mt device; пробирка ft tube;
болезнь fi disease; инфекция fi infection; перелом mi fracture; рана fi wound; опухоль fi tumour;
ожог mi burn; аллергия fi allergy; травма fi injury; язва fi ulcer; простуда fi cold;
воспаление ni inflammation; диагноз mb diagnosis; симптом mb symptom; дело nb matter; случай mb case;
зуб mo tooth; палец mo finger stem=пальц; рука fo* arm; нога fo* leg; почка fo kidney;
желудок mo stomach stem=желудк; сустав mo joint; орган mo organ; операция fe operation;
осмотр me examination; анализ me test; приём me appointment; процедура fe procedure;
консультация fe consultation; прививка fe vaccination; обследование ne screening; дежурство ne shift;
больница fv hospital; палата fv ward; поликлиника fv clinic; аптека fv pharmacy; лаборатория fv laboratory;
отделение nv department; санаторий mv sanatorium; кабинет mv office
"""

HOSPITAL_ADJECTIVES = """
опасный icer dangerous; хронический i chronic; острый i acute; тяжёлый ib serious; стерильный t sterile;
медицинский dt medical; одноразовый t disposable; здоровый po healthy; главный p chief; сильный i severe;
редкий ir rare; плановый e scheduled; лёгкий i mild; чистый tv clean; больной po sick; сломанный o broken;
платный ve private; внимательный p attentive
"""

HOSPITAL_VERBS = """
лечить вылечить treat|cure 4 pi; осматривать осмотреть:осмотрю:осмотришь examine 4 po;
оперировать прооперировать operate_on 4 p; выписывать выписать:выпишу:выпишешь prescribe 4 r;
назначать назначить schedule 4 e; проводить провести:проведу:проведёшь:провёл:провела perform 4 e;
перевязывать перевязать:перевяжу:перевяжешь bandage 4 o; обнаруживать обнаружить detect 4 i;
вызывать вызвать:вызову:вызовешь call 4 p; навещать навестить visit 4 p;
мыть:мою:моешь вымыть:вымою:вымоешь wash 4 to;
переводить перевести:переведу:переведёшь:перевёл:перевела transfer 4 p; заражать заразить infect 4 p;
удалять удалить remove 4 o; менять поменять change 4 tr; заказывать заказать:закажу:закажешь order 4 rt;
успокаивать успокоить calm 4 p; вводить ввести:введу:введёшь:ввёл:ввела inject 4 r;
снимать снять:сниму:снимешь take/took/taken_off 4 t; отменять отменить cancel 4 e;
принимать принять:приму:примешь see/saw/seen 4 p; кормить накормить feed/fed/fed 4 p;
стерилизовать простерилизовать sterilise 4 t; заполнять заполнить complete 4 d;
оплачивать оплатить pay/paid/paid 4 de; будить разбудить wake/woke/woken 4 p
"""

BANK_NOUNS = """
клиент mp client; кассир mp cashier; банкир mp banker; бухгалтер mp accountant; менеджер mp manager;
вкладчик mp depositor; заёмщик mp borrower; аудитор mp auditor; инвестор mp investor; кредитор mp creditor;
охранник mp guard; консультант mp consultant; брокер mp broker; предприниматель mp entrepreneur;
аналитик mp analyst; акционер mp shareholder; экономист mp economist; партнёр mp partner; должник mp* debtor;
договор md contract; чек md cheque; выписка fd statement; справка fd confirmation; квитанция fd receipt;
заявка fd application; отчёт md report; тариф md tariff; анкета fd form; облигация fd bond; акция fd share;
полис md policy; смета fd estimate; бюджет md budget; доверенность fd authorisation; прогноз md forecast;
гарантия fd guarantee; карта ft card; заключение nd opinion; лицензия fd licence; баланс md balance;
счёт mm account np=счета ps=счет; кредит mm loan; вклад mm deposit; платёж mm* payment stem=платеж;
перевод mm transfer; долг mm debt; убыток mm loss stem=убытк; налог mm tax; сумма fm sum;
взнос mm contribution; комиссия fm commission; аванс mm advance; зарплата fm salary; пенсия fm pension;
премия fm bonus; ипотека fm mortgage; доход mm income; расход mm expense; валюта fm currency;
прибыль fm profit; сейф mt safe; банкомат mt ATM; терминал mt terminal; касса ft till; печать ft stamp;
калькулятор mt calculator; кошелёк mt* wallet stem=кошельк; монета ft coin; купюра ft banknote;
слиток mt ingot stem=слитк; пароль mt password; курс mb rate; сделка fb deal; операция fb transaction;
анализ mb analysis; риск mb risk; дело nb business; ставка fb rate; реформа fb reform; кризис mb crisis;
инвестиция fb investment; приём me reception; банк mv bank; отделение nv branch; хранилище nv vault;
офис mv office; фонд mv fund; биржа fn exchange; рынок mn market stem=рынк; консультация fe advice_session;
аукцион me auction
"""

BANK_ADJECTIVES = """
финансовый dbme financial; годовой dm annual; кредитный db credit; выгодный mb profitable; крупный m large;
валютный mb foreign; банковский dm bank; просроченный m overdue; надёжный pvt reliable; богатый p wealthy;
частный pvm private; налоговый bde tax; ежемесячный mde monthly; льготный m preferential;
постоянный pm regular; тяжёлый tb heavy; сильный vb strong; фальшивый dt counterfeit; процентный db interest;
золотой t gold
"""

BANK_VERBS = """
открывать открыть:открою:откроешь open 4 m; закрывать закрыть:закрою:закроешь close 4 mv;
выдавать выдать:дать issue R dm; оплачивать оплатить pay/paid/paid 4 m;
снимать снять:сниму:снимешь withdraw/withdrew/withdrawn 4 m;
вносить внести:внесу:внесёшь:внёс:внесла deposit 4 m;
переводить перевести:переведу:переведёшь:перевёл:перевела transfer R m;
пересчитывать пересчитать recount 4 m; погашать погасить repay/repaid/repaid 4 m;
одобрять одобрить approve 4 dmb; подписывать подписать:подпишу:подпишешь sign 4 d;
блокировать заблокировать block 4 m; продавать продать:дать sell/sold/sold R dt;
покупать купить buy/bought/bought 4 dt; обменивать обменять exchange 4 tm;
рассчитывать рассчитать calculate 4 m; увеличивать увеличить increase 4 m; снижать снизить reduce 4 m;
страховать застраховать insure 4 pm; финансировать профинансировать finance 4 b;
оценивать оценить assess 4 bd; занимать занять:займу:займёшь borrow 4 m; обслуживать обслужить serve 4 p;
контролировать проконтролировать supervise 4 pb; принимать принять:приму:примешь accept 4 dm;
рассматривать рассмотреть:рассмотрю:рассмотришь consider 4 db; консультировать проконсультировать advise 4 p;
проверять проверить check 4 dmt; заполнять заполнить complete 4 d; тратить потратить spend/spent/spent 4 m;
вызывать вызвать:вызову:вызовешь invite 4 p
"""

COURT_NOUNS = """
судья mp* judge gp=судей; адвокат mp lawyer; прокурор mp prosecutor; свидетель mp witness;
подсудимый mpA defendant; потерпевший mpA victim; присяжный mpA juror; вор mp thief; преступник mp criminal;
следователь mp investigator; истец mp* plaintiff stem=истц; нотариус mp notary; эксперт mp expert;
пристав mp bailiff; полицейский mpA policeman; заключённый mpA prisoner; юрист mp jurist;
мошенник mp fraudster; убийца mp murderer; защитник mp defender; опекун mp* guardian; наследник mp heir;
беглец mp* fugitive; иск mdy lawsuit; приговор md sentence; протокол md record; закон mbw law;
жалоба fd complaint; повестка fd subpoena; апелляция fdy appeal; показание nd testimony;
завещание nd testament; постановление nd ruling; устав mdw charter; кодекс mdw code;
ордер md warrant np=ордера; ходатайство nd petition; справка fd certificate; выписка fd extract;
заключение nd conclusion; статья fd* article gp=статей; счёт md invoice np=счета ps=счет; карта ft map;
улика ft clue; нож mt* knife; пистолет mt pistol; отпечаток mt fingerprint stem=отпечатк; мантия ft robe;
молоток mt* gavel stem=молотк; решётка ft grille; верёвка ft rope; фонарь mt* torch; наручник mt handcuff;
преступление nc crime; кража fc theft; убийство nc murder; обман mc fraud; нарушение nc violation;
угроза fc threat; взятка fc bribe; побег mc escape; драка fc fight; ограбление nc robbery;
поджог mc arson_attack; дело nby case; доказательство nb proof; наказание nbx punishment; запрет mbx ban;
спор mby dispute;
обвинение nbx accusation; защита fb defence; версия fb version; мотив mb motive; право nbw right; срок mb term;
случай mb incident; сторона fb party; история fb story; операция fe raid; заседание ne hearing;
допрос me interrogation; обыск me search; процесс mey trial; экспертиза fe inspection; приём me audience;
арест mex arrest; суд mv* court; тюрьма fv prison gp=тюрем; камера fv cell; архив mv archive;
колония fv colony; палата fv chamber; отделение nv precinct; участок mn station stem=участк;
орган mv authority
"""

COURT_ADJECTIVES = """
уголовный db criminal; гражданский db civil; судебный dbe judicial; незаконный bcde illegal;
справедливый pb fair; виновный p guilty; невиновный p innocent; тяжкий c grave; ложный db false;
письменный db written; тайный tbe secret; верховный v supreme; военный pv military; жестокий pc cruel;
подозрительный ptb suspicious; тяжёлый cb grave; окончательный d final; кровавый tc bloody;
опасный pct dangerous; устный b oral
"""

COURT_VERBS = """
судить осудить try|convict 4 p; обвинять обвинить accuse 4 p; оправдывать оправдать acquit 4 p;
допрашивать допросить interrogate 4 p; арестовывать арестовать arrest 4 p;
защищать защитить:защищу:защитишь defend 4 p;
рассматривать рассмотреть:рассмотрю:рассмотришь hear/heard/heard 4 db;
раскрывать раскрыть:раскрою:раскроешь solve 4 c; совершать совершить commit 4 c;
доказывать доказать:докажу:докажешь prove 4 bc; отклонять отклонить reject 4 d;
нарушать нарушить break/broke/broken 4 w; отменять отменить overturn 4 d;
вызывать вызвать:вызову:вызовешь summon 4 p; приговаривать приговорить sentence 4 p;
освобождать освободить release 4 p; наказывать наказать:накажу:накажешь punish 4 p;
похищать похитить:похищу:похитишь abduct 4 p;
прятать:прячу:прячешь спрятать:спрячу:спрячешь hide/hid/hidden 4 td;
красть:краду:крадёшь:крал:крала украсть:украду:украдёшь:украл:украла steal/stole/stolen 4 td;
грабить ограбить rob 4 p; подделывать подделать forge 4 d; оглашать огласить announce 4 d;
снимать снять:сниму:снимешь lift 4 x; выигрывать выиграть win/won/won 4 y;
проигрывать проиграть lose/lost/lost 4 y; узнавать:узнаю:узнаёшь узнать recognise 4 pt;
обыскивать обыскать:обыщу:обыщешь search 4 pv; проверять проверить verify 4 bd;
принимать принять:приму:примешь adopt 4 d; подписывать подписать:подпишу:подпишешь sign 4 d
"""
